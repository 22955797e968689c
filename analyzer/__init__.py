"""The analyzer worker: validate, route, analyse, publish. Its core touches neither Kafka nor time."""
