package nfs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/csikit/csikit/backends"
)

// The kernel mounts NFS 4 by itself, once it is told the server's address: mount.nfs
// adds that, tries versions, and is no part of a driver's image here. In a worker
// the kernel also says why it refused, and killing the worker ends the mount at any
// point, with nothing mounted. NFS 3 needs more (the mount protocol, a port mapper,
// rpc.statd for locks), which mount.nfs sees to: for it alone it is run.

// addresses of a host, as options for the kernel.
func addresses(ctx context.Context, host string, o *mountOptions) ([]netip.Addr, error) {
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	found, err := (&net.Resolver{PreferGo: true}).LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, unavailable("address of NFS server %s: %w", host, err)
	}
	for i := range found {
		found[i] = found[i].Unmap()
	}
	if strings.HasSuffix(o.value("proto"), "6") {
		found = slices.DeleteFunc(found, netip.Addr.Is4)
	} else if o.value("proto", "tcp", "rdma") != "" {
		found = slices.DeleteFunc(found, func(a netip.Addr) bool { return !a.Is4() })
	}
	if len(found) == 0 {
		return nil, unavailable("NFS server %s has no address for the option proto", host)
	}
	return found, nil
}

// kernelTry is one way to ask the kernel.
type kernelTry struct{ words []string }

// tries are the versions and addresses for the kernel, the best first; none for what
// mount.nfs has to mount.
func tries(ctx context.Context, addrs []netip.Addr, o *mountOptions) []kernelTry {
	versions := []string{"4.2", "4.1", "4.0"}
	switch v := o.version(); v {
	case "3":
		return nil
	case "", "4":
	default:
		versions = []string{v}
	}
	// What mount.nfs itself makes something of, or the kernel does not know.
	rest := o.without("vers", "nfsvers", "minorversion", "v3", "v4", "v4.0", "v4.1", "v4.2", "retry", "fg", "intr", "nointr", "proto", "tcp", "rdma", "clientaddr")
	var list []kernelTry
	for _, v := range versions {
		for _, a := range addrs {
			words := append(slices.Clone(rest), "vers="+v, "proto="+protoFor(a, o), "addr="+a.String())
			if c := clientAddress(ctx, a, o); c != "" {
				words = append(words, "clientaddr="+c)
			}
			list = append(list, kernelTry{words})
		}
	}
	return list
}

func protoFor(a netip.Addr, o *mountOptions) string {
	proto := "tcp"
	if o.rdma() {
		proto = "rdma"
	}
	if a.Is6() {
		proto += "6"
	}
	return proto
}

// clientAddress is this host's on the way to the server, for the callbacks of NFS
// 4.0; nothing is sent to find it.
func clientAddress(ctx context.Context, a netip.Addr, o *mountOptions) string {
	if given := o.value("clientaddr"); given != "" {
		return given
	}
	conn, err := new(net.Dialer).DialContext(ctx, "udp", net.JoinHostPort(a.String(), strconv.Itoa(o.port())))
	if err != nil {
		return ""
	}
	defer conn.Close() //nolint:errcheck // nothing was sent
	if from, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		return from.AddrPort().Addr().Unmap().String()
	}
	return ""
}

// another tells whether the next version or address may do better.
func another(err error) bool {
	return errors.Is(err, syscall.EPROTONOSUPPORT) || lost(err)
}

// mountError gives the kernel's refusal a kind.
func mountError(source string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, backends.ErrUnavailable), errors.Is(err, backends.ErrInvalid), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("%w: the server has no %s, or does not export it to this node: %w", backends.ErrPrecondition, source, err)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w: the server does not let this node mount %s (exports, sec=, root of the export): %w", backends.ErrPermission, source, err)
	case errors.Is(err, syscall.ENODEV), errors.Is(err, backends.ErrPrecondition):
		return fmt.Errorf("%w: this kernel has no NFS client (modprobe nfsv4): %w", backends.ErrPrecondition, err)
	case errors.Is(err, syscall.EPROTONOSUPPORT):
		return fmt.Errorf("%w: the server and this kernel have no version of NFS in common: %w", backends.ErrPrecondition, err)
	}
	return unavailable("%w", err)
}
