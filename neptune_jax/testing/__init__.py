"""For tests and benchmarks of this package and of programs that use it; nothing else imports it."""
