"""S3: moto over real HTTP, and a small fake for what moto wrongly accepts."""
