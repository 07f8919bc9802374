"""What people look at: masks on frames, sentences, level meters, contact sheets and videos."""
