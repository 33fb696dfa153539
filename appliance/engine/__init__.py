"""The running appliance: its parts, their order of start and stop, the state that terminals see."""
