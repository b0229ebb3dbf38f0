"""The measure: benchmark rules and judges. Sees reca_core only through its contracts."""
