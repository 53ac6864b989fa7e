package kubernetes

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// table is what became of each flow with each driver.
var table struct {
	sync.Mutex
	flows, drivers []string
	cells          map[[2]string]string
}

// note keeps a result; flows and drivers stand in the order of their first.
func note(flow, driver, result string) {
	table.Lock()
	defer table.Unlock()
	if table.cells == nil {
		table.cells = map[[2]string]string{}
	}
	table.flows = appendNew(table.flows, flow)
	table.drivers = appendNew(table.drivers, driver)
	table.cells[[2]string{flow, driver}] = result
}

func appendNew(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

func passed(d time.Duration) string { return fmt.Sprintf("pass (%.1f s)", d.Seconds()) }

// tableFile names a file with the table of an earlier run, which is printed with that
// of this one, and written again.
const tableFile = "CSIKIT_KUBERNETES_TABLE"

// saved is a table as JSON.
type saved struct {
	Flows, Drivers []string
	Cells          []cell
}

type cell struct{ Flow, Driver, Result string }

// merge puts what an earlier run saw before what this one saw.
func merge(path string) error {
	var s saved
	b, err := os.ReadFile(path)
	if err == nil && len(b) > 0 {
		err = json.Unmarshal(b, &s)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now := saved{table.flows, table.drivers, nil}
	table.flows, table.drivers = s.Flows, s.Drivers
	for _, c := range s.Cells {
		if _, ok := table.cells[[2]string{c.Flow, c.Driver}]; !ok {
			table.cells[[2]string{c.Flow, c.Driver}] = c.Result
		}
	}
	for _, f := range now.Flows {
		table.flows = appendNew(table.flows, f)
	}
	for _, d := range now.Drivers {
		table.drivers = appendNew(table.drivers, d)
	}
	s = saved{table.flows, table.drivers, nil}
	for k, r := range table.cells {
		s.Cells = append(s.Cells, cell{k[0], k[1], r})
	}
	b, err = json.Marshal(s)
	return errors.Join(err, os.WriteFile(path, b, 0o644))
}

// printTables prints the tables of runs as one, and tells whether that is everything:
// each flow of each driver, passed or with a reason not to be run, and no flow or driver
// with nothing but reasons.
func printTables(paths []string) int {
	table.cells = map[[2]string]string{}
	for _, path := range slices.Backward(paths) { // what is merged later stands before
		if err := merge(path); err != nil {
			fmt.Println("table:", err)
			return 1
		}
	}
	hosts := hostVariants()
	all := append(slices.Clone(hosts), vmVariants()...)
	for _, v := range all[1:] {
		for _, f := range smoke {
			note(f.name, v.name, smokeNot)
		}
	}
	show()
	passes := map[string]bool{}
	lacks := lacking(hosts[:1], smoke, passes)
	for _, v := range all {
		lacks = append(lacks, lacking([]variant{v}, v.flows, passes)...)
	}
	for _, f := range slices.Concat(smoke, flows) {
		if !passes[f.name] {
			lacks = append(lacks, f.name+": passed with no driver")
		}
	}
	for _, v := range all {
		if !passes[v.name] {
			lacks = append(lacks, v.name+": passed no flow")
		}
	}
	for _, l := range lacks {
		fmt.Println("kubernetes: not whole:", l)
	}
	return min(len(lacks), 1)
}

const smokeNot = "- it is of steps that the flows have"

// lacking are the flows that neither passed nor have a reason; passes learns of flows
// and drivers that passed.
func lacking(variants []variant, flows []flow, passes map[string]bool) (lacks []string) {
	for _, v := range variants {
		for _, f := range flows {
			switch result := table.cells[[2]string{f.name, v.name}]; {
			case strings.HasPrefix(result, "pass"):
				passes[f.name], passes[v.name] = true, true
			case !strings.HasPrefix(result, "- "):
				lacks = append(lacks, fmt.Sprintf("%s, %s: %q", v.name, f.name, result))
			}
		}
	}
	return lacks
}

// printTable prints flow by driver; it is false when the table could not be kept.
func printTable() bool {
	table.Lock()
	defer table.Unlock()
	if path := os.Getenv(tableFile); path != "" && len(table.flows) > 0 {
		if err := merge(path); err != nil {
			fmt.Println("table:", err)
			return false
		}
	}
	if len(table.flows) > 0 {
		show()
	}
	return true
}

func show() {
	fmt.Printf("\n| flow | %s |\n|---|%s\n", strings.Join(table.drivers, " | "), strings.Repeat("---|", len(table.drivers)))
	for _, f := range table.flows {
		row := []string{f}
		for _, d := range table.drivers {
			cell := table.cells[[2]string{f, d}]
			if cell == "" {
				cell = "not run"
			}
			row = append(row, cell)
		}
		fmt.Printf("| %s |\n", strings.Join(row, " | "))
	}
	fmt.Println()
}
