// Program csi-driver is the test bed's own CSI driver: volumes are sparse files, and an attached
// volume is a loop device. It stands in for the drivers that people have, so it keeps the promises
// that they rely on: a volume attached to one node refuses another, a volume of one place refuses
// every other place, and a call that was answered stays answered across a restart.
//
//	DIR/controller.sock   Identity and Controller, for the sidecars
//	DIR/NODE.sock         Identity and Node, for the kubelet of that node
//	DIR/volumes           ID.json, what is known of a volume, and ID.img, its bytes
//	DIR/snapshots         the same for snapshots
//	DIR/faults            what is to go wrong: see faults.go
//
// Both nodes are served by one process, because both are on one machine. What a node may do with a
// volume is decided by what is recorded as attached to it, not by what the machine could do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Name is what StorageClasses call the driver.
const Name = "loop.csi.test"

// nodes are given as NAME,ZONE,KUBELET_ROOT; without a root no kubelet is told.
type nodes []node

type node struct {
	name, zone, kubelet string
}

func (n *nodes) String() string { return fmt.Sprint(*n) }

func (n *nodes) Set(value string) error {
	parts := strings.SplitN(value, ",", 3)
	if len(parts) != 3 || parts[0] == "" {
		return errors.New("a node is NAME,ZONE,KUBELET_ROOT")
	}
	*n = append(*n, node{parts[0], parts[1], parts[2]})
	return nil
}

func main() {
	var all nodes
	state := flag.String("state", "", "the folder that holds everything")
	flag.Var(&all, "node", "a node, as NAME,ZONE,KUBELET_ROOT; once for each")
	flag.Parse()
	if err := run(*state, all); err != nil {
		log.Fatal(err)
	}
}

func run(state string, all nodes) error {
	servers, err := serve(state, all)
	if err != nil {
		return err
	}
	return <-servers
}

// serve opens all sockets before it returns; the first server that ends sends why.
func serve(state string, all nodes) (<-chan error, error) {
	store, err := openStore(state)
	if err != nil {
		return nil, err
	}
	volumes, err := store.volumes()
	if err != nil {
		return nil, err
	}
	for _, volume := range volumes {
		if err := thaw(context.Background(), store.image("volumes", volume.ID)); err != nil {
			return nil, err
		}
	}
	driver := &driver{
		store:  store,
		nodes:  all,
		busy:   map[string]bool{},
		faults: faults{folder: filepath.Join(state, "faults")},
	}
	ended := make(chan error, 1+2*len(all))
	start := func(socket string, register func(*grpc.Server)) error {
		listener, err := listen(socket)
		if err != nil {
			return err
		}
		server := grpc.NewServer(grpc.UnaryInterceptor(logged))
		register(server)
		go func() { ended <- server.Serve(listener) }()
		return nil
	}
	err = start(filepath.Join(state, "controller.sock"), func(server *grpc.Server) {
		csi.RegisterIdentityServer(server, identity{})
		csi.RegisterControllerServer(server, &controller{driver: driver})
	})
	if err != nil {
		return nil, err
	}
	for _, node := range all {
		socket := filepath.Join(state, node.name+".sock")
		err := start(socket, func(server *grpc.Server) {
			csi.RegisterIdentityServer(server, identity{})
			csi.RegisterNodeServer(server, &nodeServer{driver: driver, node: node})
		})
		if err != nil {
			return nil, err
		}
		if node.kubelet == "" {
			continue
		}
		// The kubelet finds this one by itself, now or when it starts.
		folder := filepath.Join(node.kubelet, "plugins_registry")
		if err := os.MkdirAll(folder, 0o750); err != nil {
			return nil, err
		}
		err = start(filepath.Join(folder, Name+"-reg.sock"), func(server *grpc.Server) {
			registration.RegisterRegistrationServer(server, registrar{endpoint: socket})
		})
		if err != nil {
			return nil, err
		}
	}
	return ended, nil
}

// listen takes the place of a socket that a driver before this one left.
func listen(socket string) (net.Listener, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", socket)
}
