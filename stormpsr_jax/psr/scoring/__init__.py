"""What is counted: steps, incorrect installations, detections."""
