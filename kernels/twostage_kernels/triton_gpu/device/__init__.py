"""What runs on the GPU: functions in Triton's language. Names in capitals are known when they are compiled."""
