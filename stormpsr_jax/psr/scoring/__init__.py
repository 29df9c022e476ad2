"""What is counted: steps, wrong parts, detections."""
