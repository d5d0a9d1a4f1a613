package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// nodeServer is the Node service of one node. It has no eyes for volumes that are not attached to
// that node, though it could see them.
type nodeServer struct {
	csi.UnimplementedNodeServer
	*driver
	node node
}

// attached is a volume that is attached to this node, and its device.
func (n *nodeServer) attached(ctx context.Context, id string) (*Volume, string, error) {
	volume, err := n.store.volume(id)
	if err != nil {
		return nil, "", err
	}
	if _, there := volume.Attached[n.node.name]; !there {
		return nil, "", status.Errorf(codes.FailedPrecondition, "%s is not attached to %s", id, n.node.name)
	}
	used, err := attach(ctx, n.store.image("volumes", id))
	return volume, used, err
}

// NodeStageVolume mounts a volume's file system. A volume for many nodes is mounted on each from
// the one device that it has: the kernel, which all nodes of this machine share, then shows one and
// the same file system in all places. Real shared storage is more than that; for what a pod sees,
// it is the same.
func (n *nodeServer) NodeStageVolume(ctx context.Context, request *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if err := given("volume id", request.VolumeId); err != nil {
		return nil, err
	}
	if err := given("staging path", request.StagingTargetPath); err != nil {
		return nil, err
	}
	if request.VolumeCapability == nil {
		return nil, status.Error(codes.InvalidArgument, "no capability is given")
	}
	release, err := n.hold(request.VolumeId)
	if err != nil {
		return nil, err
	}
	defer release()
	volume, used, err := n.attached(ctx, request.VolumeId)
	if err != nil {
		return nil, err
	}
	if err := volume.Parameters.allow(request.VolumeCapability); err != nil {
		return nil, err
	}
	if volume.Block != (request.VolumeCapability.GetBlock() != nil) {
		return nil, status.Errorf(codes.InvalidArgument, "%s is for the other volume mode", volume.ID)
	}
	if err := n.faults.before(ctx, "Stage", volume); err != nil {
		return nil, err
	}
	done := &csi.NodeStageVolumeResponse{}
	if volume.Block {
		return done, nil
	}
	there, err := at(request.StagingTargetPath)
	if err != nil {
		return nil, err
	}
	if there != nil {
		return done, n.grow(ctx, volume, used, request.StagingTargetPath)
	}
	if err := format(ctx, used, volume.FileSystem); err != nil {
		return nil, err
	}
	elsewhere, err := mountsOf(used)
	if err != nil {
		return nil, err
	}
	if volume.Grow && len(elsewhere) == 0 {
		if err := growUnmounted(ctx, used, volume.FileSystem); err != nil {
			return nil, err
		}
	}
	options := mountOptions(volume, n.node.name, request.VolumeCapability.GetMount().GetMountFlags())
	if err := os.MkdirAll(request.StagingTargetPath, 0o750); err != nil {
		return nil, err
	}
	if _, err := command(ctx, "mount", "-t", volume.FileSystem, "-o", options, used, request.StagingTargetPath); err != nil {
		return nil, err
	}
	return done, n.grow(ctx, volume, used, request.StagingTargetPath)
}

func mountOptions(volume *Volume, node string, asked []string) string {
	all := append([]string{"defaults"}, asked...)
	if volume.Attached[node] {
		all = append(all, "ro")
	}
	if volume.FileSystem == "xfs" {
		// A clone has its source's id, and both may be mounted. (For btrfs the kernel gives the second
		// one another id, from 6.7 on; ext4 does not mind.)
		all = append(all, "nouuid")
	}
	return strings.Join(all, ",")
}

// grow does what is due since the volume was made larger than its file system.
func (n *nodeServer) grow(ctx context.Context, volume *Volume, used, point string) error {
	if !volume.Grow || volume.Attached[n.node.name] {
		return nil
	}
	if err := grow(ctx, used, volume.FileSystem, point); err != nil {
		return err
	}
	_, err := n.store.change(volume.ID, func(volume *Volume) error {
		volume.Grow = false
		return nil
	})
	return err
}

func (n *nodeServer) NodeUnstageVolume(ctx context.Context, request *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if err := given("volume id", request.VolumeId); err != nil {
		return nil, err
	}
	if err := given("staging path", request.StagingTargetPath); err != nil {
		return nil, err
	}
	release, err := n.hold(request.VolumeId)
	if err != nil {
		return nil, err
	}
	defer release()
	volume, err := n.store.volume(request.VolumeId)
	if err == nil {
		err = n.faults.before(ctx, "Unstage", volume)
	} else if status.Code(err) == codes.NotFound {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	return &csi.NodeUnstageVolumeResponse{}, unmount(request.StagingTargetPath)
}

// NodePublishVolume shows a staged volume at a path for one pod.
func (n *nodeServer) NodePublishVolume(ctx context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if err := given("volume id", request.VolumeId); err != nil {
		return nil, err
	}
	if err := given("target path", request.TargetPath); err != nil {
		return nil, err
	}
	if request.VolumeCapability == nil {
		return nil, status.Error(codes.InvalidArgument, "no capability is given")
	}
	release, err := n.hold(request.VolumeId)
	if err != nil {
		return nil, err
	}
	defer release()
	volume, used, err := n.attached(ctx, request.VolumeId)
	if err != nil {
		return nil, err
	}
	done := &csi.NodePublishVolumeResponse{}
	there, err := at(request.TargetPath)
	if err != nil || there != nil {
		return done, err
	}
	if request.VolumeCapability.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER {
		if err := n.alone(volume, used, request.StagingTargetPath); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Dir(request.TargetPath), 0o750); err != nil {
		return nil, err
	}
	readOnly := request.Readonly || volume.Attached[n.node.name]
	if volume.Block {
		file, err := os.OpenFile(request.TargetPath, os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		file.Close()
		return done, bind(used, request.TargetPath, readOnly)
	}
	staged, err := at(request.StagingTargetPath)
	if err != nil {
		return nil, err
	}
	if staged == nil || staged.source != used {
		return nil, status.Errorf(codes.FailedPrecondition, "%s is not staged", volume.ID)
	}
	if err := os.Mkdir(request.TargetPath, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return done, bind(request.StagingTargetPath, request.TargetPath, readOnly)
}

// alone fails if a pod of this node has the volume already, that is, if it is mounted in any place
// but the one where it is staged. What a lost node still has mounted is not this node's to see.
func (n *nodeServer) alone(volume *Volume, used, staging string) error {
	points, err := mountsOf(used)
	if err != nil {
		return err
	}
	elsewhere := func(point string) bool {
		return slices.ContainsFunc(n.nodes, func(other node) bool {
			return other != n.node && other.kubelet != "" && strings.HasPrefix(point, other.kubelet+"/")
		})
	}
	for _, point := range points {
		if point != staging && !elsewhere(point) {
			return status.Errorf(codes.FailedPrecondition, "%s is for one pod, and is at %s", volume.ID, point)
		}
	}
	return nil
}

func (n *nodeServer) NodeUnpublishVolume(_ context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := given("volume id", request.VolumeId); err != nil {
		return nil, err
	}
	if err := given("target path", request.TargetPath); err != nil {
		return nil, err
	}
	release, err := n.hold(request.VolumeId)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := unmount(request.TargetPath); err != nil {
		return nil, err
	}
	if err := os.Remove(request.TargetPath); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
