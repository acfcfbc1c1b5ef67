"""StatisticsGen: the statistics that TFX's own component makes, without a Beam pipeline where one machine does the work."""
