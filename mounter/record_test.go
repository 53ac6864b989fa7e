package mounter

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

var update = flag.Bool("update", false, "write the golden files of the current version anew")

func device() *deviceRecord {
	return &deviceRecord{
		Path: "/dev/loop7", Num: 1799, DiskSeq: 42, Size: 1 << 30, Serial: "S1", WWID: "naa.600", DMUUID: "LVM-x",
		BackingDev: 2049, BackingIno: 1234,
	}
}

// forms is every form that a record can have, by golden file.
func forms() map[string]*record {
	const boot = "11111111-2222-3333-4444-555555555555"
	stage := func(p phase) record {
		return record{
			Version: 1, Kind: kindStage, Volume: "vol-1", Path: "/var/lib/kubelet/plugins/x/globalmount", BootID: boot,
			Phase: p, Access: accessMount, Mode: "SINGLE_NODE_WRITER", FSType: "ext4",
		}
	}
	publish := func(p phase) record {
		r := stage(p)
		r.Kind, r.StagingPath, r.Path = kindPublish, r.Path, "/var/lib/kubelet/pods/u/volumes/x/mount"
		return r
	}
	all := map[string]*record{}
	add := func(name string, r record, change func(*record)) {
		if change != nil {
			change(&r)
		}
		all[name] = &r
	}
	onDevice := func(r *record) { r.Source, r.Device, r.State = sourceDevice, device(), []byte{0, 1, 2, 255} }
	formatted := func(state string) *formatRecord {
		return &formatRecord{State: state, FSType: "ext4", BootID: boot, DiskSeq: 42}
	}
	add("stage-opening", stage(phaseOpening), nil)
	add("stage-open-device", stage(phaseOpen), func(r *record) {
		onDevice(r)
		r.Device.Num, r.Device.DiskSeq, r.Device.Size = 0, 0, 0
	})
	add("stage-open-format-started", stage(phaseOpen), func(r *record) { onDevice(r); r.Format = formatted(formatStarted) })
	add("stage-open-format-done", stage(phaseOpen), func(r *record) { onDevice(r); r.Format = formatted(formatDone) })
	add("stage-open-growing", stage(phaseOpen), func(r *record) {
		onDevice(r)
		r.Format = formatted(formatDone)
		r.Format.Growing = "6a0f2d0e-7a4b-4a56-9c3b-0d8f3b1f7c55"
	})
	add("stage-ready-device", stage(phaseReady), func(r *record) {
		onDevice(r)
		r.Format = formatted(formatDone)
		r.Mounted = &mountedRecord{ID: 77, Dev: 1799, Root: "/", FSType: "ext4"}
		r.Flags = &digest{Salt: []byte("0123456789abcdef"), MAC: mac([]byte("0123456789abcdef"), []string{"noatime", "discard"})}
		r.Group, r.ReadOnly = "2000", true
	})
	add("stage-ready-block", stage(phaseReady), func(r *record) {
		onDevice(r)
		r.Access, r.FSType = accessBlock, ""
		r.Device.ReadOnly, r.Device.Unverified = true, "the array gives no serial"
	})
	add("stage-ready-mount", stage(phaseReady), func(r *record) {
		r.Source, r.Mount = sourceMount, &mountRecord{Source: "server:/export/a", FSType: "nfs4", Remote: true}
		r.Mounted = &mountedRecord{ID: 78, Dev: 45, Root: "/", FSType: "nfs4"}
	})
	add("stage-ready-dir", stage(phaseReady), func(r *record) {
		r.Source, r.Dir = sourceDir, "/srv/volumes/vol-1"
		r.Mounted = &mountedRecord{ID: 79, Dev: 2049, Root: "/srv/volumes/vol-1", FSType: "ext4"}
	})
	add("stage-closing", stage(phaseClosing), onDevice)
	add("publish-binding", publish(phaseBinding), nil)
	add("publish-ready", publish(phaseReady), func(r *record) {
		r.ReadOnly, r.Mounted = true, &mountedRecord{ID: 80, Dev: 1799, Root: "/", FSType: "ext4"}
	})
	add("stage-ready-ephemeral", stage(phaseReady), func(r *record) {
		r.Source, r.Dir, r.For = sourceDir, "/srv/volumes/vol-1", "csi-0123"
		r.Mounted = &mountedRecord{ID: 79, Dev: 2049, Root: "/srv/volumes/vol-1", FSType: "ext4"}
	})
	ephemeral := func(p phase) record {
		r := publish(p)
		r.Version, r.Kind, r.Volume, r.StagingPath = 2, kindEphemeral, "csi-0123", ""
		r.Arguments = &digest{Salt: []byte("0123456789abcdef"), MAC: mac([]byte("0123456789abcdef"), []string{"size", "1Gi"})}
		return r
	}
	own := func(r *record) { r.Own, r.Context = "vol-1", map[string]string{"pool": "a"} }
	add("ephemeral-creating", ephemeral(phaseCreating), nil)
	add("ephemeral-created", ephemeral(phaseCreated), own)
	add("ephemeral-ready", ephemeral(phaseReady), func(r *record) { own(r); r.ReadOnly, r.State = true, []byte{0, 1, 2, 255} })
	add("ephemeral-deleting", ephemeral(phaseDeleting), own)
	add("ephemeral-deleting-unknown", ephemeral(phaseDeleting), nil)
	add("publish-ready-block", publish(phaseReady), func(r *record) {
		r.Access, r.FSType, r.Source, r.Device = accessBlock, "", sourceDevice, device()
		r.Mounted = &mountedRecord{ID: 81, Dev: 6, Root: "/loop7", FSType: "devtmpfs"}
	})
	encrypted := func(r *record) {
		onDevice(r)
		const name = "csikit-vkj6tdlpxhcwvtcbkaq6lsoz4a-65bf2e84-4e7b-48c7-8fce-e0c96377143f"
		r.Version, r.Mapping = 3, &deviceRecord{Path: "/dev/mapper/" + name, DMUUID: "CRYPT-LUKS2-65bf2e844e7b48c78fcee0c96377143f-" + name}
	}
	opened := func(r *record) {
		encrypted(r)
		r.Mapping.Num, r.Mapping.DiskSeq, r.Mapping.Size = 65024, 43, 1<<30-16<<20
	}
	add("stage-open-encrypted", stage(phaseOpen), func(r *record) { encrypted(r); r.Format = formatted(formatStarted) })
	add("stage-ready-encrypted", stage(phaseReady), func(r *record) {
		opened(r)
		r.Mounted = &mountedRecord{ID: 77, Dev: 65024, Root: "/", FSType: "ext4"}
	})
	add("publish-ready-encrypted", publish(phaseReady), func(r *record) {
		opened(r)
		r.Access, r.FSType, r.State = accessBlock, "", nil
		r.Mounted = &mountedRecord{ID: 81, Dev: 6, Root: "/dm-0", FSType: "devtmpfs"}
	})
	served := func(r *record) {
		r.Version, r.Source, r.State = 4, sourceFUSE, []byte{0, 1, 2, 255}
		r.Mount = &mountRecord{Source: "bucket-1", FSType: "fuse.s3", Remote: true}
		r.Server = &serverRecord{Options: []string{"allow_other", "nosuid"}, IDMap: []idMap{{Node: 100000, Count: 65536}}}
	}
	add("stage-open-fuse", stage(phaseOpen), served)
	add("stage-ready-fuse", stage(phaseReady), func(r *record) {
		served(r)
		r.Mounted = &mountedRecord{ID: 82, Dev: 46, Root: "/", FSType: "fuse.s3"}
	})
	add("stage-ready-fuse-healing", stage(phaseReady), func(r *record) {
		served(r)
		r.Server.Healing, r.Mounted = true, &mountedRecord{ID: 82, Dev: 46, Root: "/", FSType: "fuse.s3"}
	})
	add("publish-ready-rebind", publish(phaseReady), func(r *record) {
		r.ReadOnly, r.Mounted = true, &mountedRecord{ID: 83, Dev: 46, Root: "/", FSType: "fuse.s3"}
		r.Rebind = &rebindRecord{Options: []string{"ro", "nosuid", "relatime"}}
	})
	return all
}

// TestGoldenRecords: records that are on disks somewhere are read, completely,
// for as long as their version is.
func TestGoldenRecords(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "v*", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		form := forms()[strings.TrimSuffix(filepath.Base(f), ".json")]
		if form == nil || filepath.Base(filepath.Dir(f)) != fmt.Sprint("v", form.Version) {
			t.Errorf("golden file %s has no form here", f)
		}
	}
	for name, want := range forms() {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", fmt.Sprint("v", want.Version), name+".json")
			now, err := want.encode()
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(file, now, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := decodeRecord(want.name(), b)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("read %+v, want %+v", got, want)
			}
			if string(now) != string(b) {
				t.Errorf("writes\n%s\nand used to write\n%s", now, b)
			}
		})
	}
}

func TestForeignRecords(t *testing.T) {
	good := forms()["stage-ready-device"]
	change := func(f func(m map[string]any)) string {
		b, err := good.encode()
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		f(m)
		b, err = json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, text := range map[string]string{
		"empty":            "",
		"torn":             `{"version": 1, "kind": "stage", "vol`,
		"not a record":     `[1,2]`,
		"no version":       change(func(m map[string]any) { delete(m, "version") }),
		"newer version":    change(func(m map[string]any) { m["version"] = recordVersion + 1 }),
		"other volume":     change(func(m map[string]any) { m["volume"] = "vol-2" }),
		"other path":       change(func(m map[string]any) { m["path"] = "/elsewhere" }),
		"unknown kind":     change(func(m map[string]any) { m["kind"] = "move" }),
		"unknown phase":    change(func(m map[string]any) { m["phase"] = "melting" }),
		"phase of another": change(func(m map[string]any) { m["phase"] = "binding" }),
		"ephemeral":        change(func(m map[string]any) { m["kind"] = "ephemeral" }),
		"block, no device": change(func(m map[string]any) {
			m["access"] = "block"
			delete(m, "device")
			delete(m, "source")
		}),
		"unknown access": change(func(m map[string]any) { m["access"] = "object" }),
		"unknown source": change(func(m map[string]any) { m["source"] = "tape" }),
		"no device":      change(func(m map[string]any) { delete(m, "device") }),
		"no boot":        change(func(m map[string]any) { delete(m, "bootID") }),
		"unknown format": change(func(m map[string]any) { m["format"] = map[string]any{"state": "maybe"} }),
		"trailing data":  change(func(map[string]any) {}) + "{}",
	} {
		if r, err := decodeRecord(good.name(), []byte(text)); err == nil {
			t.Errorf("%s: accepted as %+v", name, r)
		}
	}
	// What an older driver may ignore does not keep it from working.
	hint := change(func(m map[string]any) { m["hint"] = "of a later release" })
	if _, err := decodeRecord(good.name(), []byte(hint)); err != nil {
		t.Errorf("a field more: %v", err)
	}
}

func TestDigest(t *testing.T) {
	flags := backends.NewFlags("password=geheim", "noatime")
	d := newDigest(flags)
	if !d.matches(backends.NewFlags("password=geheim", "noatime")) {
		t.Error("the same flags do not match")
	}
	for _, other := range []backends.Flags{
		{}, backends.NewFlags("password=geheim"), backends.NewFlags("password=geheimnoatime"), backends.NewFlags("noatime", "password=geheim"),
	} {
		if d.matches(other) {
			t.Errorf("%v match", other.Reveal())
		}
	}
	if !(*digest)(nil).matches(backends.Flags{}) || (*digest)(nil).matches(flags) {
		t.Error("no flags")
	}
	if string(newDigest(flags).MAC) == string(d.MAC) {
		t.Error("two digests of the same flags are equal: they are not salted")
	}
	r := forms()["stage-opening"]
	r.Flags = d
	b, err := r.encode()
	if err != nil || strings.Contains(string(b), "geheim") {
		t.Errorf("%s, %v", b, err)
	}
}

// TestRecordNames: the parts of a name keep ids and paths apart that run
// together otherwise.
func TestRecordNames(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range []kind{kindStage, kindPublish, kindEphemeral} {
		for _, id := range []string{"a", "a-b", "A", "../../etc", "a\x00b", strings.Repeat("x", 4000)} {
			for _, path := range []string{"/a", "/a-b", "/A", "/a/../b"} {
				n := recordName(k, id, path)
				if seen[n] || filepath.Base(n) != n || len(n) > 100 {
					t.Errorf("name %q of %q %q", n, id, path)
				}
				seen[n] = true
				if volumeHashOf(n) != shortHash(id) {
					t.Errorf("name %q does not say its volume", n)
				}
			}
		}
	}
	for _, n := range []string{"", "lock", "stage-a-b.json", "x-" + shortHash("a") + "-" + shortHash("b") + ".json", recordName(kindStage, "a", "/b") + "~"} {
		if volumeHashOf(n) != "" {
			t.Errorf("%q is taken for a record", n)
		}
	}
}
