package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
)

// The community's suite for drivers. It needs root and loop devices.
func TestSanity(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("volumes are loop devices: run this as root")
	}
	folder := t.TempDir()
	if _, err := serve(folder, nodes{{name: "node-a", zone: "a"}}); err != nil {
		t.Fatal(err)
	}
	config := sanity.NewTestConfig()
	config.Address = "unix:" + filepath.Join(folder, "node-a.sock")
	config.ControllerAddress = "unix:" + filepath.Join(folder, "controller.sock")
	config.TargetPath = filepath.Join(folder, "target")
	config.StagingPath = filepath.Join(folder, "staging")
	config.TestVolumeSize = 64 << 20
	config.TestVolumeExpandSize = 128 << 20
	sanity.Test(t, config)
}
