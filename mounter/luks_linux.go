package mounter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
)

// The exit codes of cryptsetup.
const (
	cryptNoKey    = 2
	cryptNoMemory = 3
	cryptNoDevice = 4
)

// cryptsetup runs it with a key on its standard input. It makes the nodes of its
// devices itself: waiting for udev, which libdevmapper does by semaphores, never
// ends in a container.
func (k linux) cryptsetup(ctx context.Context, key backends.Secret, c command.Cmd) (command.Result, error) {
	c.Path, c.Vars = "cryptsetup", map[string]string{"DM_DISABLE_UDEV": "1"}
	if v := key.Reveal(); v != "" {
		c.Stdin = strings.NewReader(v)
	}
	res, err := k.run.Run(ctx, c)
	var exit *command.ExitError
	if errors.As(err, &exit) && exit.Cause == nil {
		switch exit.Code {
		case cryptNoKey:
			return res, ErrWrongKey
		case cryptNoMemory:
			return res, fmt.Errorf("not enough memory for the key (see backends.Encryption.PBKDF): %w", err)
		}
	}
	return res, err
}

// onDevice runs cryptsetup on a device, which is locked as long as it runs, so
// that one that outlives this process is known.
func (k linux) onDevice(ctx context.Context, dev Device, key backends.Secret, c command.Cmd) (command.Result, error) {
	d, err := blockDevice(dev)
	if err != nil {
		return command.Result{}, err
	}
	lock, err := lockDevice(ctx, d)
	if err != nil {
		return command.Result{}, err
	}
	for i, a := range c.Args {
		if a == onThisDevice {
			c.Args[i] = heldPath(d)
		}
	}
	c.Scope, c.Hold = d.Path(), []*os.File{lock}
	res, err := k.cryptsetup(ctx, key, c)
	return res, errors.Join(err, lock.Close())
}

const onThisDevice = "{device}"

func (k linux) LUKSHeader(_ context.Context, dev Device) (LUKSHeader, error) {
	d, err := blockDevice(dev)
	if err != nil {
		return LUKSHeader{}, err
	}
	size, err := d.Size()
	if err != nil {
		return LUKSHeader{}, err
	}
	// cryptsetup writes past the page cache.
	if err := unix.Fadvise(int(d.File().Fd()), 0, luksRoom, unix.FADV_DONTNEED); err != nil {
		return LUKSHeader{}, &fs.PathError{Op: "fadvise", Path: d.Path(), Err: err}
	}
	return parseLUKS(d.File(), size)
}

func (k linux) LUKSFormat(ctx context.Context, d Device, e backends.Encryption) error {
	args := []string{"luksFormat", "--batch-mode", "--type", "luks2", "--subsystem", LUKSNew, "--key-file", "-"}
	if e.Cipher != "" {
		args = append(args, "--cipher", e.Cipher)
	}
	if e.KeyBits == 0 && strings.Contains(e.Cipher, "adiantum") {
		e.KeyBits = 256
	}
	if e.KeyBits != 0 {
		args = append(args, "--key-size", strconv.Itoa(e.KeyBits))
	}
	if e.SectorSize != 0 {
		args = append(args, "--sector-size", strconv.Itoa(e.SectorSize))
	}
	_, err := k.onDevice(ctx, d, e.Key, command.Cmd{Args: append(append(args, pbkdfArgs(e)...), onThisDevice)})
	return err
}

// pbkdfArgs: cryptsetup's own limit, 1 GiB, is more than a container has.
func pbkdfArgs(e backends.Encryption) []string {
	var args []string
	if e.PBKDF == "pbkdf2" {
		args = []string{"--pbkdf", "pbkdf2"}
	} else {
		memory := e.Memory
		if memory == 0 {
			memory = 64 << 10
		}
		args = []string{"--pbkdf", "argon2id", "--pbkdf-memory", strconv.Itoa(memory)}
	}
	if e.Iterations != 0 {
		args = append(args, "--pbkdf-force-iterations", strconv.Itoa(e.Iterations))
	}
	return args
}

func (k linux) LUKSMark(ctx context.Context, d Device, mark string) error {
	_, err := k.onDevice(ctx, d, backends.Secret{}, command.Cmd{Args: []string{"config", "--subsystem", mark, onThisDevice}})
	return err
}

var unlocked = regexp.MustCompile(`(?m)^Key slot (\d+) unlocked\.`)

func (k linux) LUKSOpen(ctx context.Context, r LUKSOpenRequest) (int, error) {
	// Without the kernel's keyring the mapping can be resized without the key, which
	// nobody has by then; many containers have no keyring at all.
	args := []string{"open", "--verbose", "--type", "luks", "--key-file", "-", "--disable-keyring"}
	if r.Test {
		args = append(args, "--test-passphrase", onThisDevice)
	} else {
		if r.ReadOnly {
			args = append(args, "--readonly")
		}
		if r.Discard {
			args = append(args, "--allow-discards")
		}
		args = append(args, onThisDevice, r.Name)
	}
	res, err := k.onDevice(ctx, r.Device, r.Key, command.Cmd{Args: args})
	if err != nil {
		return 0, err
	}
	m := unlocked.FindSubmatch(append(res.Stdout, res.Stderr...))
	if m == nil {
		return 0, fmt.Errorf("cryptsetup does not say which slot the key opened: %q", res.Stdout)
	}
	return strconv.Atoi(string(m[1]))
}

func (k linux) LUKSAddKey(ctx context.Context, d Device, e backends.Encryption) error {
	args := append([]string{"luksAddKey", "--batch-mode", "--key-file", "-"}, pbkdfArgs(e)...)
	_, err := k.onDevice(ctx, d, e.PreviousKey, command.Cmd{
		Args: append(args, onThisDevice, "{file:new}"), Files: map[string]backends.Secret{"new": e.Key},
	})
	return err
}

func (k linux) LUKSRemoveKey(ctx context.Context, d Device, slot int, key backends.Secret) error {
	// Without --batch-mode, with which it asks for no key.
	_, err := k.onDevice(ctx, d, key, command.Cmd{Args: []string{"luksKillSlot", "--key-file", "-", onThisDevice, strconv.Itoa(slot)}})
	return err
}

func (k linux) LUKSResize(ctx context.Context, name string) error {
	_, err := k.cryptsetup(ctx, backends.Secret{}, command.Cmd{Args: []string{"resize", "--batch-mode", name}, Scope: name})
	return err
}

func (k linux) LUKSClose(ctx context.Context, name string) error {
	_, err := k.cryptsetup(ctx, backends.Secret{}, command.Cmd{Args: []string{"close", name}, Scope: name})
	var exit *command.ExitError
	if errors.As(err, &exit) && exit.Cause == nil && exit.Code == cryptNoDevice {
		return nil
	}
	return err
}

func (k linux) LUKSMappings(prefix string) ([]LUKSMapping, error) {
	names, err := filepath.Glob("/sys/block/dm-*/dm/name")
	if err != nil {
		return nil, err
	}
	var all []LUKSMapping
	for _, file := range names {
		name, err := os.ReadFile(file)
		if !strings.HasPrefix(string(name), prefix) {
			if err != nil && !gone(err) {
				return nil, err
			}
			continue
		}
		m, err := readMapping(filepath.Dir(filepath.Dir(file)))
		switch {
		case gone(err):
		case err != nil:
			return nil, err
		case strings.HasPrefix(m.UUID, "CRYPT-") && strings.HasPrefix(m.Name, prefix):
			all = append(all, m)
		}
	}
	return all, nil
}

// gone: an attribute of a device that was removed meanwhile.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// readMapping reads a device of the device-mapper in sysfs.
func readMapping(dir string) (m LUKSMapping, err error) {
	attr := func(name string) string {
		b, e := os.ReadFile(filepath.Join(dir, name))
		err = errors.Join(err, e)
		return strings.TrimSpace(string(b))
	}
	m.Name, m.UUID = attr("dm/name"), attr("dm/uuid")
	num := attr("dev")
	if err != nil {
		return m, err
	}
	if m.Num, err = parseDev(num); err != nil {
		return m, err
	}
	below, err := os.ReadDir(filepath.Join(dir, "slaves"))
	if err != nil {
		return m, err
	}
	for _, b := range below {
		on, err := parseDev(attr(filepath.Join("slaves", b.Name(), "dev")))
		if err != nil {
			return m, err
		}
		m.On = append(m.On, on)
	}
	m.Path, err = nodeOf(m.Name, filepath.Base(dir), m.Num)
	return m, err
}

func parseDev(s string) (uint64, error) {
	var major, minor uint32
	if _, err := fmt.Sscanf(s, "%d:%d", &major, &minor); err != nil {
		return 0, fmt.Errorf("device number %q: %w", s, err)
	}
	return unix.Mkdev(major, minor), nil
}

// nodeOf is a path of the device with that number: cryptsetup's, or the kernel's.
func nodeOf(name, kernelName string, num uint64) (string, error) {
	paths := []string{mapperDir + name, "/dev/" + kernelName}
	for _, p := range paths {
		st, err := look(p, 0)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && unix.Mkdev(st.Rdev_major, st.Rdev_minor) == num {
			return p, nil
		}
	}
	return "", fmt.Errorf("mapping %s has no device node: neither of %v is device %s", name, paths, devName(num))
}
