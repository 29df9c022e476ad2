"""Reads what a source gives: folders, pictures, videos, labels and boxes."""
