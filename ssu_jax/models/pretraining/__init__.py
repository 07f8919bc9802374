"""The two encoders learn from video alone: which sound goes with which picture, and what hidden squares hold."""
