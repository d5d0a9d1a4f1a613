package main

import (
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/api/resource"
)

// parameters of a StorageClass. All are optional:
//
//	csi.storage.k8s.io/fstype  ext4 (the default), xfs or btrfs; read by the provisioner
//	topology   none: every node reaches a volume (the default); zone or node: only those of the
//	           zone, or only the node, where it was made
//	access     the access modes that a volume can have, by comma; ReadWriteOnce and
//	           ReadWriteOncePod are the default
//	pool       volumes of one pool share its capacity
//	capacity   what all volumes of the pool may have together, such as 256Mi; needs a pool
//	full       true: nothing can be made, whatever GetCapacity says
//	slowCALL   how long a call takes at least, such as slowDetach: 10s; see faults.go for the calls
//	failCALL   with what words a call fails, such as failDelete: no
type parameters map[string]string

const defaultAccess = "ReadWriteOnce,ReadWriteOncePod"

// metadata is what the provisioner adds to a class's own parameters.
const metadata = "csi.storage.k8s.io/"

// classParameters refuses what it does not know: a misspelt fault would test nothing.
func classParameters(all map[string]string) (parameters, error) {
	own := parameters{}
	for key, value := range all {
		if strings.HasPrefix(key, metadata) {
			continue
		}
		known := slices.Contains([]string{"topology", "access", "pool", "capacity", "full"}, key)
		for _, call := range calls {
			known = known || key == "slow"+call || key == "fail"+call
		}
		if !known {
			return nil, status.Errorf(codes.InvalidArgument, "there is no parameter %q", key)
		}
		own[key] = value
	}
	if !slices.Contains([]string{"", "none", "zone", "node"}, own["topology"]) {
		return nil, status.Error(codes.InvalidArgument, "topology is none, zone or node")
	}
	if own["capacity"] != "" && own["pool"] == "" {
		return nil, status.Error(codes.InvalidArgument, "a capacity is a pool's: name the pool")
	}
	if _, err := own.limit(); err != nil {
		return nil, err
	}
	return own, nil
}

// limit is what the pool may hold, or 0 for a pool that has no end.
func (p parameters) limit() (int64, error) {
	if p["capacity"] == "" {
		return 0, nil
	}
	limit, err := resource.ParseQuantity(p["capacity"])
	if err != nil || limit.Value() <= 0 {
		return 0, status.Errorf(codes.InvalidArgument, "%q is no capacity", p["capacity"])
	}
	return limit.Value(), nil
}

// allow says whether a volume of the class can be used in this way.
func (p parameters) allow(capability *csi.VolumeCapability) error {
	access := p["access"]
	if access == "" {
		access = defaultAccess
	}
	mode := capability.GetAccessMode().GetMode()
	name, known := map[csi.VolumeCapability_AccessMode_Mode]string{
		csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER:        "ReadWriteOnce",
		csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:  "ReadWriteOnce",
		csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY:   "ReadWriteOnce",
		csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER: "ReadWriteOncePod",
		csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY:    "ReadOnlyMany",
		csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER:  "ReadWriteMany",
		csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER:   "ReadWriteMany",
	}[mode]
	if !known || !slices.Contains(strings.Split(access, ","), name) {
		return status.Errorf(codes.InvalidArgument, "access mode %s is not among %s", mode, access)
	}
	if capability.GetBlock() == nil && capability.GetMount() == nil {
		return status.Error(codes.InvalidArgument, "it is neither block nor mount")
	}
	if kind := capability.GetMount().GetFsType(); kind != "" && leastOf[kind] == 0 {
		return status.Errorf(codes.InvalidArgument, "there is no file system %q", kind)
	}
	return nil
}

// allowAll fails without any: a volume is made for something.
func (p parameters) allowAll(capabilities []*csi.VolumeCapability) error {
	if len(capabilities) == 0 {
		return status.Error(codes.InvalidArgument, "no capability is given")
	}
	for _, capability := range capabilities {
		if err := p.allow(capability); err != nil {
			return err
		}
	}
	return nil
}

// many says whether a mode lets several nodes have the volume at a time.
func many(capability *csi.VolumeCapability) bool {
	switch capability.GetAccessMode().GetMode() {
	case csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
		csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER,
		csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER:
		return true
	}
	return false
}
