module sidekey.test/oauth_engine

go 1.22

require github.com/ory/hydra/v2 v2.3.0

// As Hydra's own go.mod has it; what a dependency replaces does not count for those who depend on it.
replace github.com/gobuffalo/pop/v6 => github.com/ory/pop/v6 v6.2.1-0.20241121111754-e5dfc0f3344b
