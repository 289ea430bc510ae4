"""What a trained model finds hard, and which labels it doubts: lists and a page."""
