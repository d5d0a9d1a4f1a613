package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (n *nodeServer) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{
		NodeId:             n.node.name,
		AccessibleTopology: &csi.Topology{Segments: segments(n.node)},
	}, nil
}

func (n *nodeServer) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	var all []*csi.NodeServiceCapability
	for _, kind := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		all = append(all, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{
			Rpc: &csi.NodeServiceCapability_RPC{Type: kind},
		}})
	}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: all}, nil
}

// NodeExpandVolume makes a file system that is in use as large as its device has become.
func (n *nodeServer) NodeExpandVolume(ctx context.Context, request *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	if err := given("volume id", request.VolumeId); err != nil {
		return nil, err
	}
	if err := given("volume path", request.VolumePath); err != nil {
		return nil, err
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
	if !volume.Block {
		if err := n.grow(ctx, volume, used, request.VolumePath); err != nil {
			return nil, err
		}
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: volume.Capacity}, nil
}

func (n *nodeServer) NodeGetVolumeStats(_ context.Context, request *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if err := given("volume id", request.VolumeId); err != nil {
		return nil, err
	}
	if err := given("volume path", request.VolumePath); err != nil {
		return nil, err
	}
	volume, err := n.store.volume(request.VolumeId)
	if err != nil {
		return nil, err
	}
	if volume.Block {
		return deviceStats(request.VolumePath)
	}
	there, err := at(request.VolumePath)
	if err != nil {
		return nil, err
	}
	if there == nil {
		return nil, status.Errorf(codes.NotFound, "%s is not at %s", volume.ID, request.VolumePath)
	}
	var stats unix.Statfs_t
	if err := unix.Statfs(request.VolumePath, &stats); err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{
		Unit:      csi.VolumeUsage_BYTES,
		Total:     int64(stats.Blocks) * stats.Bsize,
		Available: int64(stats.Bavail) * stats.Bsize,
		Used:      int64(stats.Blocks-stats.Bfree) * stats.Bsize,
	}, {
		Unit:      csi.VolumeUsage_INODES,
		Total:     int64(stats.Files),
		Available: int64(stats.Ffree),
		Used:      int64(stats.Files - stats.Ffree),
	}}}, nil
}

func deviceStats(path string) (*csi.NodeGetVolumeStatsResponse, error) {
	device, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, status.Errorf(codes.NotFound, "there is nothing at %s", path)
	}
	if err != nil {
		return nil, err
	}
	defer device.Close()
	size, err := device.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{
		Unit:  csi.VolumeUsage_BYTES,
		Total: size,
	}}}, nil
}
