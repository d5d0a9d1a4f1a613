//go:build tools

// Package tools names the command that a test runs, so that go.mod keeps what it needs.
package tools

import _ "github.com/kedacore/keda/v2/cmd/operator"
