// registrar stands in for kubernetes-csi/node-driver-registrar, which the module
// proxy does not serve at its current version: it takes the same flags, and serves
// kubelet's plug-in registration API, by Kubernetes' own package, for one driver.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	reg "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

type server struct {
	reg.UnimplementedRegistrationServer
	name, endpoint string
}

func (s server) GetInfo(context.Context, *reg.InfoRequest) (*reg.PluginInfo, error) {
	return &reg.PluginInfo{Type: reg.CSIPlugin, Name: s.name, Endpoint: s.endpoint, SupportedVersions: []string{"1.0.0"}}, nil
}

func (s server) NotifyRegistrationStatus(_ context.Context, st *reg.RegistrationStatus) (*reg.RegistrationStatusResponse, error) {
	log.Printf("registered=%v %s", st.PluginRegistered, st.Error)
	return &reg.RegistrationStatusResponse{}, nil
}

func main() {
	address := flag.String("csi-address", "/run/csi/socket", "the driver's socket")
	endpoint := flag.String("kubelet-registration-path", "", "the driver's socket as kubelet sees it")
	dir := flag.String("plugin-registration-path", "/registration", "kubelet's plugins_registry")
	flag.Int("v", 0, "")
	flag.Parse()
	conn, err := grpc.NewClient("unix://"+*address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	info, err := csi.NewIdentityClient(conn).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
	cancel()
	if err != nil {
		log.Fatal(err)
	}
	socket := filepath.Join(*dir, info.GetName()+"-reg.sock")
	_ = os.Remove(socket) // as the original does
	lis, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	s := grpc.NewServer()
	reg.RegisterRegistrationServer(s, server{name: info.GetName(), endpoint: *endpoint})
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() { <-signals; s.Stop(); _ = os.Remove(socket) }()
	log.Printf("%s %s on %s", info.GetName(), info.GetVendorVersion(), socket)
	if err := s.Serve(lis); err != nil {
		log.Fatal(err)
	}
}
