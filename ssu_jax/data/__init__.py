"""Pictures, sound and labels in NumPy: files, records, transforms, batches. Touches no device."""
