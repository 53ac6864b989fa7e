package nfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"
)

// pingTime is how long a server may take to answer a question that costs it nothing.
const pingTime = 2 * time.Second

// errNoServer says that there is no NFS server to be reached, or that it is silent.
var errNoServer = errors.New("no answer from the NFS server")

// Of ONC RPC (RFC 5531) and NFS (RFC 7530).
const (
	rpcCall, rpcReply = 0, 1
	rpcVersion        = 2
	nfsProgram        = 100003
	nfsVersion        = 4
	procNull          = 0
	lastFragment      = 1 << 31
)

// ping calls procedure 0 of the NFS server at host:port, which does nothing. It
// touches no mount and no file handle, and waits in no system call. Whatever is
// answered, also that this version is not served, comes from a server that lives.
func ping(ctx context.Context, server string) error {
	if err := askNull(ctx, server); err != nil {
		return fmt.Errorf("%w %s: %w", errNoServer, server, err)
	}
	return nil
}

func askNull(ctx context.Context, server string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", server)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost with it
	if end, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(end); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // it ends the read
	defer stop()
	id := rand.Uint32()
	call := []uint32{
		0, id, rpcCall, rpcVersion, nfsProgram, nfsVersion, procNull,
		0, 0, // no credentials
		0, 0, // no verifier
	}
	call[0] = lastFragment | uint32(4*(len(call)-1))
	var b []byte
	for _, word := range call {
		b = binary.BigEndian.AppendUint32(b, word)
	}
	if _, err := conn.Write(b); err != nil {
		return err
	}
	answer := make([]byte, 12) // the mark of the fragment, the id, the kind of message
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if gotID, kind := binary.BigEndian.Uint32(answer[4:]), binary.BigEndian.Uint32(answer[8:]); gotID != id || kind != rpcReply {
		return errors.New("what answers does not speak NFS")
	}
	return nil
}
