package sanity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/internal/csiclient"
)

// checkServices says at once that an endpoint is not the one that was meant:
// csi-sanity would say so once a spec, and leave its volumes.
func checkServices(ctx context.Context, cfg *Config) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.CallTimeout)
	defer cancel()
	at := cfg.ControllerEndpoint
	if at == "" {
		at = cfg.Endpoint
	}
	return errors.Join(checkNode(ctx, cfg.Endpoint), checkController(ctx, at))
}

func checkNode(ctx context.Context, endpoint string) error {
	conn, err := csiclient.Dial(endpoint)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing was sent that could be lost
	_, err = csi.NewNodeClient(conn).NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	if status.Code(err) == codes.Unimplemented {
		return fmt.Errorf("sanity: there is no Node service at %s: the node's endpoint is another", csiclient.Endpoint(endpoint))
	}
	return nil // whatever else is wrong is csi-sanity's to say
}

// checkController lets a driver be that has no Controller service anywhere.
func checkController(ctx context.Context, endpoint string) error {
	conn, err := csiclient.Dial(endpoint)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing was sent that could be lost
	plugin, err := csi.NewIdentityClient(conn).GetPluginCapabilities(ctx, &csi.GetPluginCapabilitiesRequest{})
	if err != nil {
		return fmt.Errorf("sanity: the driver at %s: GetPluginCapabilities: %w", csiclient.Endpoint(endpoint), err)
	}
	for _, c := range plugin.GetCapabilities() {
		if c.GetService().GetType() != csi.PluginCapability_Service_CONTROLLER_SERVICE {
			continue
		}
		_, err := csi.NewControllerClient(conn).ControllerGetCapabilities(ctx, &csi.ControllerGetCapabilitiesRequest{})
		if status.Code(err) == codes.Unimplemented {
			return fmt.Errorf("sanity: the driver has a Controller service, and it is not at %s: the controller's endpoint is another", csiclient.Endpoint(endpoint))
		}
	}
	return nil
}

// aliveTimeout is how long a driver may take to say that it lives.
const aliveTimeout = 10 * time.Second

// stillThere says once what all specs after it said in their ways: the driver is
// gone.
func stillThere(ctx context.Context, cfg *Config) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(cfg.CallTimeout, aliveTimeout))
	defer cancel()
	for _, endpoint := range []string{cfg.Endpoint, cfg.ControllerEndpoint} {
		if endpoint == "" {
			continue
		}
		conn, err := csiclient.Dial(endpoint)
		if err != nil {
			return err
		}
		_, err = csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{})
		_ = conn.Close() // nothing was sent that could be lost
		if c := status.Code(err); c == codes.Unavailable || c == codes.DeadlineExceeded {
			return fmt.Errorf("sanity: the driver at %s does not answer any more: %w", csiclient.Endpoint(endpoint), err)
		}
	}
	return nil
}
