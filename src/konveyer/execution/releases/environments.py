"""The environments that are always there."""

DEV, TEST, PROD = "dev", "test", "prod"
