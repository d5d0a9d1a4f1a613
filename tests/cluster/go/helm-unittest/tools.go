//go:build tools

// Package tools names the command that the chart's tests run, so that go.mod keeps what it needs.
package tools

import _ "github.com/helm-unittest/helm-unittest/cmd/helm-unittest"
