"""Reads what a source gives: folders and zip files, pictures, videos, labels and boxes."""
