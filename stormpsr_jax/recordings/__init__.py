"""A recording of an assembly: its procedure, labels, boxes, predictions and scores in files."""
