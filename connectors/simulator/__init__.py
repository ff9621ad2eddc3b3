"""The virtual plant: parts, sensors, stations, PLC and lab, all driven by one seed."""
