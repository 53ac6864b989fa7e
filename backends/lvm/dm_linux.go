package lvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

// The ioctls of device-mapper that only look (linux/dm-ioctl.h). lvm makes and
// changes the devices; to ask it how a pool is costs a tenth of a second.
const (
	dmControl = "/dev/mapper/control"

	dmHeader     = 312 // sizeof(struct dm_ioctl)
	dmTarget     = 40  // sizeof(struct dm_target_spec)
	dmDevStatus  = 7
	dmTableState = 12

	dmOffStart = 16 // of what the answer has behind the header
	dmOffCount = 20 // of targets
	dmOffOpen  = 24
	dmOffFlags = 28
	dmOffUUID  = 176
	dmUUIDLen  = 129

	dmNoFlush  = 1 << 11 // of a pool: do not commit its metadata first
	dmTooSmall = 1 << 8  // DM_BUFFER_FULL_FLAG
)

func (k *mapper) fd() (uintptr, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.control == nil {
		f, err := os.OpenFile(dmControl, os.O_RDWR, 0)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
		}
		k.control = f
	}
	return k.control.Fd(), nil
}

// dmCall runs one of them for a device; nil: there is no such device.
func (k *mapper) dmCall(cmd uintptr, uuid string, room int) ([]byte, error) {
	if len(uuid) >= dmUUIDLen {
		return nil, fmt.Errorf("%w: device UUID of %d bytes", backends.ErrInvalid, len(uuid))
	}
	fd, err := k.fd()
	if err != nil {
		return nil, err
	}
	b := make([]byte, dmHeader+room)
	ne := binary.NativeEndian
	ne.PutUint32(b[0:], 4) // version 4.0.0
	ne.PutUint32(b[12:], uint32(len(b)))
	ne.PutUint32(b[dmOffStart:], dmHeader)
	ne.PutUint32(b[dmOffFlags:], dmNoFlush)
	copy(b[dmOffUUID:], uuid)
	const readWrite = 3
	req := uintptr(readWrite)<<30 | dmHeader<<16 | 0xfd<<8 | cmd
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, req, uintptr(unsafe.Pointer(&b[0]))) //nolint:gosec // as the ioctl wants it
	switch {
	case errors.Is(errno, unix.ENXIO):
		return nil, nil
	case errno != 0:
		return nil, fmt.Errorf("%w: device-mapper: %w", backends.ErrUnavailable, errno)
	}
	return b, nil
}

// used says how many have the device open, as lvm's lv_device_open; -1: it is not
// there.
func (k *mapper) used(uuid string) (int, error) {
	b, err := k.dmCall(dmDevStatus, uuid, 0)
	if b == nil || err != nil {
		return -1, err
	}
	return int(int32(binary.NativeEndian.Uint32(b[dmOffOpen:]))), nil //nolint:gosec // as the kernel has it
}

// pool asks how full a thin pool is; data -1: it is not active.
func (k *mapper) pool(uuid string) (data, meta float64, health string, err error) {
	b, err := k.dmCall(dmTableState, uuid+"-tpool", 4096)
	if b == nil || err != nil {
		return -1, -1, "", err
	}
	ne := binary.NativeEndian
	start := int(ne.Uint32(b[dmOffStart:]))
	if ne.Uint32(b[dmOffFlags:])&dmTooSmall != 0 || ne.Uint32(b[dmOffCount:]) != 1 || start+dmTarget > len(b) {
		return 0, 0, "", fmt.Errorf("%w: device-mapper: status of a thin pool", backends.ErrUnavailable)
	}
	text, _, _ := bytes.Cut(b[start+dmTarget:], []byte{0})
	return poolStatus(string(text))
}

// poolStatus reads "1 14/1024 31/512 - rw no_discard_passdown error_if_no_space - 1024".
func poolStatus(s string) (data, meta float64, health string, err error) {
	f := strings.Fields(s)
	bad := fmt.Errorf("%w: device-mapper: status of a thin pool: %q", backends.ErrUnavailable, s)
	if len(f) > 0 && (f[0] == "Fail" || f[0] == "Error") {
		return 100, 100, "failed", nil
	}
	if len(f) < 7 {
		return 0, 0, "", bad
	}
	if meta, err = share(f[1]); err != nil {
		return 0, 0, "", bad
	}
	if data, err = share(f[2]); err != nil {
		return 0, 0, "", bad
	}
	switch f[4] {
	case "rw":
	case "out_of_data_space":
		health = "out_of_data"
	default:
		health = "metadata_read_only"
	}
	return data, meta, health, nil
}

// share is "31/512" in percent, as lvm rounds it.
func share(s string) (float64, error) {
	used, all, _ := strings.Cut(s, "/")
	u, err1 := strconv.ParseUint(used, 10, 64)
	a, err2 := strconv.ParseUint(all, 10, 64)
	if err := errors.Join(err1, err2); err != nil || a == 0 {
		return 0, errors.Join(err, errNoReason)
	}
	return math.Round(float64(u)*10000/float64(a)) / 100, nil
}
