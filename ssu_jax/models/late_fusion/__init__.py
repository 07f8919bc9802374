"""Late fusion of published networks: masks and sentences for real video, without training."""
