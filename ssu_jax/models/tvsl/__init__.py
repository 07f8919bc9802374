"""Text-guided localization: T-VSL, and the encoders of image, sound and text that it stands on."""
