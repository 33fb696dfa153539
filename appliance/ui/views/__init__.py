"""What the screens say: pure functions from snapshots to lines, without widgets or clocks."""
