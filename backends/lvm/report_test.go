package lvm

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

// Reports as lvm 2.03.16 wrote them.
func recorded(t testing.TB, file string) []byte {
	t.Helper()
	out, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestReport(t *testing.T) {
	g, err := decodeVolumes("lvm.csikit.dev", testVG, recorded(t, "lvs.json"))
	if err != nil {
		t.Fatal(err)
	}
	if g.extent != 4<<20 || g.free == 0 || len(g.lvs) != 8 {
		t.Errorf("%+v", g)
	}
	v, err := g.find("linear", nameOf(kindVolume, "pvc-1"))
	if err != nil || v == nil || !v.active || v.open || v.size != 8<<20 || v.own.State != stateReady {
		t.Errorf("%+v, %v", v, err)
	}
	if want := "LVM-" + strings.ReplaceAll(g.uuid+v.uuid, "-", ""); v.dmUUID() != want || len(want) != 68 {
		t.Errorf("%s, want %s", v.dmUUID(), want)
	}
	if v, err := g.find("thin", nameOf(kindVolume, "pvc-2")); err != nil || v == nil || v.pool != testPool || v.data != 0 {
		t.Errorf("%+v, %v", v, err)
	}
	// The same name in another class is another volume.
	if v, err := g.find("thin", nameOf(kindVolume, "pvc-1")); v != nil || err != nil {
		t.Errorf("%+v, %v", v, err)
	}
	for _, v := range g.lvs {
		if v.name == "foreign" && (v.own != nil || v.bad != nil) {
			t.Errorf("taken for ours: %+v", v)
		}
		if v.name == testPool && (!v.zero || v.whenFull != "queue" || v.meta <= 0) {
			t.Errorf("%+v", v)
		}
	}
}

func TestReportAfterReboot(t *testing.T) {
	g, err := decodeVolumes("lvm.csikit.dev", testVG, recorded(t, "lvs-inactive.json"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := g.find("linear", nameOf(kindVolume, "pvc-1"))
	if err != nil || v == nil || v.active || v.open {
		t.Errorf("an inactive volume is %+v, %v", v, err)
	}
}

func TestReportWithoutADisk(t *testing.T) {
	g, err := decodeVolumes("lvm.csikit.dev", testVG, recorded(t, "lvs-missing.json"))
	if g == nil || !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("%+v, %v", g, err)
	}
	if g, err := decodeDisks(testVG, recorded(t, "fullreport-missing.json")); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestReportOfDisks(t *testing.T) {
	g, err := decodeDisks(testVG, recorded(t, "fullreport.json"))
	if err != nil || len(g.disks) != 3 || g.disks[0].free == 0 {
		t.Errorf("%+v, %v", g, err)
	}
	if g, err := decodeVolumes("d", testVG, recorded(t, "lvs-empty.json")); g != nil || err != nil {
		t.Errorf("a VG without LVs: %+v, %v", g, err)
	}
}

// What is not whole, or of something else, is unavailable: never empty.
func TestReportThatIsNone(t *testing.T) {
	whole := string(recorded(t, "lvs.json"))
	for what, out := range map[string]string{
		"nothing":      "",
		"torn":         whole[:len(whole)/2],
		"a log line":   "WARNING: something\n" + whole,
		"another VG":   strings.ReplaceAll(whole, `"vg_name":"vgt"`, `"vg_name":"vgu"`),
		"no size":      strings.ReplaceAll(whole, `"lv_size"`, `"lv_sighs"`),
		"negative":     strings.ReplaceAll(whole, `"vg_seqno":"`, `"vg_seqno":"-`),
		"a size":       strings.ReplaceAll(whole, `"lv_size":"8388608"`, `"lv_size":"8.00m"`),
		"exported":     strings.ReplaceAll(whole, `"vg_exported":""`, `"vg_exported":"exported"`),
		"hostile name": strings.ReplaceAll(whole, `"lv_name":"foreign"`, `"lv_name":"-rf"`),
		"no UUID":      strings.ReplaceAll(whole, `"lv_uuid":"`, `"lv_uuid":"x`),
	} {
		if g, err := decodeVolumes("lvm.csikit.dev", testVG, []byte(out)); !errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrNotFound) {
			t.Errorf("%s: %+v, %v", what, g, err)
		}
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"report":[{"lv":[{"vg_name":"vgt"}]}]}`))
	f.Fuzz(func(t *testing.T, out []byte) {
		if _, err := decodeVolumes("d", testVG, out); err != nil && !errors.Is(err, backends.ErrUnavailable) {
			t.Errorf("no kind: %v", err)
		}
		if _, err := decodeDisks(testVG, out); err != nil && !errors.Is(err, backends.ErrUnavailable) {
			t.Errorf("no kind: %v", err)
		}
	})
}
