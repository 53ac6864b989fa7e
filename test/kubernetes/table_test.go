package kubernetes

import (
	"fmt"
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

// printTable prints flow by driver.
func printTable() {
	table.Lock()
	defer table.Unlock()
	if len(table.flows) == 0 {
		return
	}
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
