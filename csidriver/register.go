package csidriver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/csikit/csikit/csidriver/internal/kubeletpb"
	"github.com/csikit/csikit/internal/kubeletsock"
)

// registryLook is how often the driver looks whether its socket is still in
// kubelet's directory.
const registryLook = time.Second

// connectable says why kubelet could not connect to a socket.
func connectable(what, path string) error {
	if err := kubeletsock.Connectable(path); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// registrationSocket is in kubelet's directory.
func registrationSocket(d *Driver) string {
	return filepath.Join(d.opts.KubeletRegistry, kubeletsock.Registration(d.cfg.Name))
}

// registration is this driver in kubelet's directory of plug-ins: a socket there,
// at which kubelet asks for the driver's name and endpoint. kubelet finds it when
// it appears, and each time that kubelet starts.
type registration struct {
	driver   *Driver
	socket   string // in kubelet's directory
	endpoint string // the driver's socket as kubelet sees it
	look     time.Duration
}

func newRegistration(d *Driver, lis net.Listener) (*registration, error) {
	r := &registration{
		driver:   d,
		socket:   registrationSocket(d),
		endpoint: d.opts.KubeletEndpoint,
		look:     registryLook,
	}
	if lis.Addr().Network() != "unix" {
		return nil, fmt.Errorf("csidriver: listener %s: kubelet calls drivers at Unix sockets alone", lis.Addr())
	}
	if r.endpoint == "" {
		r.endpoint = lis.Addr().String()
	}
	if err := connectable("the endpoint", r.endpoint); err != nil {
		return nil, fmt.Errorf("csidriver: %w; Options.KubeletEndpoint is for another path to it", err)
	}
	return r, nil
}

// registered says why kubelet does not know the driver, if it is to.
func (d *Driver) registered() error {
	if d.opts.KubeletRegistry == "" {
		return nil
	}
	switch v := d.verdict.Load(); {
	case v == nil:
		return errors.New("kubelet has not registered the driver yet")
	case !v.PluginRegistered:
		return fmt.Errorf("kubelet does not register the driver: %s", v.Error)
	}
	return nil
}

// run keeps the socket in kubelet's directory until ctx ends. kubelet may not be
// there yet, the directory may come and go, an older process may still have the
// socket: all of this is waited for.
func (r *registration) run(ctx context.Context) {
	var said string
	for ctx.Err() == nil {
		err := r.serve(ctx)
		if err != nil {
			r.driver.verdict.Store(&kubeletpb.RegistrationStatus{Error: err.Error()})
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			r.driver.logger.WarnContext(ctx, "cannot register with kubelet; it is tried again",
				slog.String("socket", r.socket), slog.String("error", said))
		}
		if err == nil {
			said = ""
		}
		select {
		case <-ctx.Done():
		case <-time.After(r.look):
		}
	}
}

// serve answers kubelet until ctx ends, or the socket is not there any more.
func (r *registration) serve(ctx context.Context) error {
	lis, err := Listen("unix://"+r.socket, 0)
	if err != nil {
		return err
	}
	r.driver.verdict.Store(nil)
	server := grpc.NewServer(grpc.ForceServerCodec(kubeletpb.Codec{}), grpc.ConnectionTimeout(handshake))
	kubeletpb.Register(server, r)
	served := make(chan error, 1)
	var serving sync.WaitGroup
	serving.Go(func() { served <- server.Serve(lis) })
	defer serving.Wait()
	defer server.Stop() // closes lis, which removes its own socket
	r.driver.logger.InfoContext(ctx, "waiting for kubelet to register the driver", slog.String("socket", r.socket))
	ticker := time.NewTicker(r.look)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-served:
			return fmt.Errorf("serve %s: %w", r.socket, err)
		case <-ticker.C:
			if err := own(lis); err != nil {
				r.driver.verdict.Store(nil) // kubelet forgets the driver with its socket
				r.driver.logger.WarnContext(ctx, "the socket for kubelet's registration is not there any more; the driver registers again",
					slog.String("socket", r.socket), slog.String("error", err.Error()))
				return nil
			}
		}
	}
}

// own says why a listener's socket is not at its path.
func own(lis net.Listener) error {
	l, ok := lis.(*unixListener)
	if !ok {
		return nil // somebody else's listener: its socket is theirs to look after
	}
	fi, err := os.Lstat(l.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s was removed", l.path)
	case err != nil:
		return err
	case !os.SameFile(fi, l.born):
		return fmt.Errorf("%s is another file now", l.path)
	}
	return nil
}

// GetInfo answers kubelet. It calls NodeGetInfo next, at the endpoint.
func (r *registration) GetInfo(context.Context, *kubeletpb.InfoRequest) (*kubeletpb.PluginInfo, error) {
	return &kubeletpb.PluginInfo{
		Type:              kubeletpb.CSIPlugin,
		Name:              r.driver.cfg.Name,
		Endpoint:          r.endpoint,
		SupportedVersions: []string{"1.0.0"}, // of CSI: kubelet looks at the major version
	}, nil
}

// NotifyRegistrationStatus hears what became of it. kubelet tries again by itself.
func (r *registration) NotifyRegistrationStatus(ctx context.Context, s *kubeletpb.RegistrationStatus) (*kubeletpb.RegistrationStatusResponse, error) {
	r.driver.verdict.Store(s)
	if s.PluginRegistered {
		r.driver.logger.InfoContext(ctx, "registered with kubelet", slog.String("endpoint", r.endpoint))
	} else {
		r.driver.logger.ErrorContext(ctx, "kubelet does not register the driver", slog.String("endpoint", r.endpoint), slog.String("error", s.Error))
	}
	return &kubeletpb.RegistrationStatusResponse{}, nil
}
