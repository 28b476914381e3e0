// Package gateway holds what the binary carries with it.
package gateway

import _ "embed"

// DemoConfig is config.toml as it was when the binary was built: the
// configuration of the demo, with every option in it.
//
//go:embed config.toml
var DemoConfig []byte
