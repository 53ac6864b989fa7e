package lvm

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

const dmTargetMessage = 14

// metadataOf is where the metadata of a thin pool is, "" when it is not active, and
// whether a snapshot of it is held.
func (k *mapper) metadataOf(uuid string) (path string, held bool, err error) {
	m, err := mapped(uuid + "-tpool")
	if m == nil || err != nil {
		return "", false, err
	}
	parts, err := filepath.Glob(filepath.Join("/sys/block", m.name, "slaves", "dm-*"))
	if err != nil {
		return "", false, err
	}
	for _, p := range parts {
		id, err := attribute(filepath.Base(p), "dm/uuid")
		if err != nil {
			return "", false, err
		}
		if !strings.HasSuffix(id, "-tmeta") {
			continue
		}
		if path, err = k.device(id); err != nil {
			return "", false, err
		}
	}
	if path == "" {
		return "", false, fmt.Errorf("%w: thin pool %s has no device with its metadata", backends.ErrUnavailable, m.name)
	}
	f, err := k.poolFields(uuid)
	if err != nil {
		return "", false, err
	}
	return path, f[3] != "-", nil
}

// poolFields are those of the status of a pool, "1 14/1024 31/512 - rw ...".
func (k *mapper) poolFields(uuid string) ([]string, error) {
	b, err := k.dmCall(dmTableState, uuid+"-tpool", 4096)
	if err != nil {
		return nil, err
	}
	if start := dmHeader + dmTarget; len(b) > start {
		text, _, _ := strings.Cut(string(b[int(binary.NativeEndian.Uint32(b[dmOffStart:]))+dmTarget:]), "\x00")
		if f := strings.Fields(text); len(f) >= 7 {
			return f, nil
		}
	}
	return nil, fmt.Errorf("%w: device-mapper: status of a thin pool", backends.ErrUnavailable)
}

// message sends a thin pool a message.
func (k *mapper) message(uuid, text string) error {
	fd, err := k.fd()
	if err != nil {
		return err
	}
	b := make([]byte, dmHeader+8, dmHeader+8+len(text)+1) // behind the header the sector, 0
	b = append(append(b, text...), 0)
	ne := binary.NativeEndian
	ne.PutUint32(b[0:], 4) // version 4.0.0
	ne.PutUint32(b[12:], uint32(len(b)))
	ne.PutUint32(b[dmOffStart:], dmHeader)
	copy(b[dmOffUUID:], uuid+"-tpool")
	const readWrite = 3
	req := uintptr(readWrite)<<30 | dmHeader<<16 | 0xfd<<8 | dmTargetMessage
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, req, uintptr(unsafe.Pointer(&b[0]))); errno != 0 { //nolint:gosec // as the ioctl wants it
		return fmt.Errorf("%w: thin pool: %s: %w", backends.ErrUnavailable, text, os.NewSyscallError("ioctl", errno))
	}
	return nil
}
