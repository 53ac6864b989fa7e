package main

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestReport(t *testing.T) {
	floor := &driver{name: "floor", size: 7.5, start: series{4, 2, 3}, rss: series{10}}
	other := &driver{name: "other", size: 9, start: series{7, 5, 6, 8}, rss: series{12.5}}
	other.rate[1] = series{0.25}
	var b strings.Builder
	if err := report(&b, config{rounds: 3, duration: time.Second, size: 1 << 30}, []*driver{floor, other}); err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(` +`).ReplaceAllString(b.String(), " ")
	for _, want := range []string{
		"3 rounds of 1s; volumes of 1024 MiB",
		"start to first Probe, ms 3.00 (2.00-4.00) 6.50 (5.00-8.00) x2.17\n",
		"binary, MB, stripped, grpcnotrace 7.50 9.00 x1.20\n",
		"RSS at rest, MiB 10.0 12.5 x1.25\n",
		"lifecycles/s, c=16 - 0.250\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no line %q in\n%s", want, &b)
		}
	}
}
