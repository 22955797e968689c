"""The analyzer worker: validate, route, analyse, publish. Its core knows neither Kafka nor time."""
