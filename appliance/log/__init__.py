"""Log lines: their form, their file, their way to the terminal, and text from outside made safe."""
