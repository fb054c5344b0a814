package main

import (
	"os"
	"strings"
	"testing"
)

// begin makes the working directory one with a page, and returns a file of what "go test -json" wrote.
func begin(t *testing.T, skip string) (page, ran string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.Mkdir("docs", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(guaranteesPage, []byte("# A\n\n"+beginMark+endMark+"## B\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var events strings.Builder
	for _, name := range tests() {
		if name != skip {
			for _, c := range []string{"/a", "/b", "/b/c"} {
				events.WriteString(`{"Action":"pass","Test":"` + name + c + `","Elapsed":1}` + "\n")
			}
			events.WriteString(`{"Action":"pass","Test":"` + name + `","Elapsed":1.5}` + "\n")
		}
	}
	events.WriteString(`{"Action":"attr","Test":"TestTLSReload","Key":"figure","Value":"12345 of a|b"}` + "\n")
	ran = "ran.json"
	if err := os.WriteFile(ran, []byte(events.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return guaranteesPage, ran
}

func TestFiguresAreWrittenAndKept(t *testing.T) {
	page, ran := begin(t, "")
	if err := checkGuarantees(nil); err == nil {
		t.Error("an empty page has the rows")
	}
	if err := writeGuarantees([]string{ran}, ""); err != nil {
		t.Fatal(err)
	}
	first, _ := os.ReadFile(page)
	for _, want := range []string{"| 12,345 of a/b |\n", "| held in 3 cases, in 1.5s |\n", lastRun, "# A\n", "## B\n"} {
		if !strings.Contains(string(first), want) {
			t.Errorf("the page does not have %q:\n%s", want, first)
		}
	}
	if err := writeGuarantees(nil, ""); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(page); string(again) != string(first) {
		t.Errorf("the page has changed, and nothing was run:\n%s", again)
	}
	if err := checkGuarantees([]string{ran}); err != nil {
		t.Error(err)
	}
}

func TestDifferencesAreTold(t *testing.T) {
	page, ran := begin(t, "TestTLSReload")
	if err := writeGuarantees(nil, ""); err != nil {
		t.Fatal(err)
	}
	if err := checkGuarantees([]string{ran}); err == nil || !strings.Contains(err.Error(), "TestTLSReload was not run") {
		t.Errorf("%v", err)
	}
	text, _ := os.ReadFile(page)
	changed := strings.Replace(string(text), "told", "not told", 1)
	if err := os.WriteFile(page, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkGuarantees(nil); err == nil {
		t.Error("a promise that is not that of the rows")
	}
	t.Setenv("CI", "true")
	if err := writeGuarantees(nil, ""); err != nil {
		t.Fatal(err)
	}
	if err := checkGuarantees([]string{"none.json"}); err == nil {
		t.Error("nobody knows what was run")
	}
}

func TestRunsAreRendered(t *testing.T) {
	begin(t, "")
	for file, text := range map[string]string{
		"chaos.json": `{"passed":2,"rounds":[{"rows":{"kv":{"operations":6000,"gap":1500000000,"late":1}}},
			{"rows":{"kv":{"operations":7000,"gap":900000000}}}],"faults":{"kill":{"times":3,"gap":{"kv":1500000000}}}}`,
		"run.json": `{"commit":"abc","rounds":3,"load":"0.10","failed":["pull, raw, round 2: no time"],"rows":[
			{"workload":"publish, 16 B","figure":"ns/op","sides":{"raw":[1,3],"ours":[1500],"orbit":[9]},"ratio":{"mean":1.5,"low":1,"high":2},"memcpy":7},
			{"workload":"publish, 16 B","figure":"allocs/op","sides":{"raw":[0],"ours":[0.001]}},
			{"workload":"connect","figure":"ns/op","sides":{"raw":[1],"ours":[2]},"ratio":{"mean":2,"low":1.9,"high":2.1}},
			{"workload":"connect","figure":"allocs/op","sides":{"raw":[8],"ours":[9]}},
			{"workload":"pull","figure":"p50 µs","sides":{"raw":[2],"ours":[1]},"ratio":{"mean":0.5,"low":0.4,"high":0.6}},
			{"workload":"floor, 16 B","figure":"ns/op","sides":{"memcpy":[1]}}]}`,
		"run.svg": "<svg/>", performancePage: beginMark + endMark,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeGuarantees(nil, "chaos.json"); err != nil {
		t.Fatal(err)
	}
	if err := writePerformance("run.json"); err != nil {
		t.Fatal(err)
	}
	for file, wants := range map[string][]string{
		guaranteesPage: {"2 rounds, of which 0 failed", "| kv | 13,000 | 0 | 1.5s | 0 | 0 | 1 | 0 |\n", "| kill | 3 | kv 1.5s |\n"},
		performancePage: {
			"- pull, raw, round 2: no time\n", "1.03, or an allocation more.\n\n- **connect**: time × 2.00 [1.90, 2.10], 9 allocations for 8. The whole", "0.97.\n\n- **pull**: p50 × 0.50 [0.40, 0.60].\n\n##",
			"commit abc", "a load of 0.10", "| publish, 16 B | ns/op | 2 | 1,500 | 1.50 [1.00, 2.00] | orbit 9 |  | 0 → <0.01 | 7 |  |\n",
		},
		drawing: {"<svg/>"},
	} {
		text, _ := os.ReadFile(file)
		for _, want := range wants {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s does not have %q:\n%s", file, want, text)
			}
		}
	}
}
