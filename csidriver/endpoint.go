package csidriver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
)

// defaultSocketMode is who may connect when nothing was said: the owner.
const defaultSocketMode fs.FileMode = 0o600

// endpoint is a parsed CSI endpoint.
type endpoint struct {
	network string // unix or tcp
	address string // absolute path, or host:port
}

// Listen opens a CSI endpoint: unix:///path, unix:/path or /path for a Unix
// socket, tcp://host:port for a remote one. A name that ends in .sock is usual
// and not demanded.
//
// The socket has its permission bits (0: 0600) from the moment it exists. Its
// directory must exist. A socket that nobody serves any more, as kill -9 leaves
// behind, is replaced; one that is served is refused with an error that wraps
// syscall.EADDRINUSE, and what is no socket is never touched. Of several
// starters at the same moment one wins. Nothing but the socket is written to the
// directory. Closing the listener removes the socket if it is still this one.
//
// Listen does not know whether a TCP endpoint will be encrypted:
// [Server.Serve] refuses it if not.
func Listen(endpoint string, mode fs.FileMode) (net.Listener, error) {
	ep, err := parseEndpoint(endpoint)
	if err != nil {
		return nil, err
	}
	if ep.network == "tcp" {
		return new(net.ListenConfig).Listen(context.Background(), ep.network, ep.address)
	}
	if mode == 0 {
		mode = defaultSocketMode
	}
	if mode&^fs.ModePerm != 0 {
		return nil, fmt.Errorf("socket mode %v: only permission bits can be set", mode)
	}
	lis, err := listenUnix(ep.address, mode)
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", endpoint, err)
	}
	return lis, nil
}

func parseEndpoint(s string) (endpoint, error) {
	if strings.HasPrefix(s, "/") {
		return unixEndpoint(s, s)
	}
	scheme, rest, found := strings.Cut(s, ":")
	switch {
	case s == "":
		return endpoint{}, errors.New("no endpoint: want unix:///path/to/csi.sock")
	case found && strings.EqualFold(scheme, "unix"):
		return unixEndpoint(s, strings.TrimPrefix(rest, "//"))
	case found && strings.EqualFold(scheme, "tcp"):
		return tcpEndpoint(s, strings.TrimPrefix(rest, "//"))
	default:
		return endpoint{}, fmt.Errorf("endpoint %q: want unix:///path/to/csi.sock or tcp://host:port", s)
	}
}

func unixEndpoint(s, path string) (endpoint, error) {
	switch {
	case strings.ContainsRune(path, 0):
		return endpoint{}, fmt.Errorf("endpoint %q: NUL in the path", s)
	case !filepath.IsAbs(path):
		return endpoint{}, fmt.Errorf("endpoint %q: the path is not absolute; a Unix endpoint has three slashes: unix:///path/to/csi.sock", s)
	case strings.HasSuffix(path, "/"):
		return endpoint{}, fmt.Errorf("endpoint %q: a directory, want the path of a socket", s)
	}
	return endpoint{"unix", filepath.Clean(path)}, nil
}

func tcpEndpoint(s, address string) (endpoint, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return endpoint{}, fmt.Errorf("endpoint %q: %w", s, err)
	}
	if port == "" {
		return endpoint{}, fmt.Errorf("endpoint %q: no port", s)
	}
	return endpoint{"tcp", address}, nil
}
