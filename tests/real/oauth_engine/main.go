// Ory Hydra, which Neon's authorization server is made with; as its own main, without the profiler.
package main

import "github.com/ory/hydra/v2/cmd"

func main() { cmd.Execute() }
