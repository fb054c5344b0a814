package main

import (
	"maps"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// ratios are points with intervals along x.
type ratios struct {
	plotter.XYs
	plotter.XErrors
}

// plot draws what each workload is judged by, as a multiple of raw: ours with its interval, and the peers.
func (rep *report) plot(file string) error {
	p := plot.New()
	p.Title.Text = "Cost of an operation as a multiple of raw nats.go: less is better"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	var names []string
	var ours ratios
	peers := map[string]plotter.XYs{}
	for _, row := range slices.Backward(rep.Rows) { // the first row stands at the top
		if !row.judged || row.Ratio == nil {
			continue
		}
		y := float64(len(names))
		names = append(names, row.Workload+", "+row.Figure)
		mean, low, high := row.Ratio.Mean, row.Ratio.Low, row.Ratio.High
		if high == 0 {
			low, high = mean, mean
		}
		ours.XYs = append(ours.XYs, plotter.XY{X: mean, Y: y})
		ours.XErrors = append(ours.XErrors, struct{ Low, High float64 }{mean - low, high - mean})
		for side, values := range row.Sides {
			if side != "raw" && side != "ours" {
				peers[side] = append(peers[side], plotter.XY{X: median(values) / median(row.Sides["raw"]), Y: y})
			}
		}
	}
	even, err := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.5}, {X: 1, Y: float64(len(names)) - 0.5}})
	if err != nil {
		return err
	}
	bars, err := plotter.NewXErrorBars(ours)
	if err != nil {
		return err
	}
	p.Add(plotter.NewGrid(), even, bars)
	peers["ours"] = ours.XYs
	for i, side := range slices.Sorted(maps.Keys(peers)) {
		points, err := plotter.NewScatter(peers[side])
		if err != nil {
			return err
		}
		points.Color, points.Shape, points.Radius = plotutil.Color(i), plotutil.Shape(i), vg.Points(3)
		p.Add(points)
		p.Legend.Add(side, points)
	}
	p.Legend.Top, p.Legend.Left = true, true // where nobody is ten times as fast
	p.NominalY(names...)
	return p.Save(24*vg.Centimeter, vg.Length(len(names)+6)*0.6*vg.Centimeter, file)
}
