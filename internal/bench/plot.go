package main

import (
	"errors"
	"image/color"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// ratios are points with intervals along x.
type ratios struct {
	plotter.XYs
	plotter.XErrors
}

// plot draws what each workload is judged by, as a multiple of raw: ours with its interval, and the peers.
func (rep *report) plot(file string) error {
	var names []string
	var ours ratios
	points := map[string]plotter.XYs{}
	least, most := 0.5, 2.0
	add := func(side string, x float64) {
		least, most = min(least, x/1.2), max(most, x*1.2)
		points[side] = append(points[side], plotter.XY{X: x, Y: float64(len(names))})
	}
	for _, row := range slices.Backward(rep.Rows) { // the first row stands at the top
		if !row.judged || row.Ratio == nil {
			continue
		}
		for side, values := range row.Sides {
			if side != "raw" && side != "ours" {
				add(side, median(values)/median(row.Sides["raw"]))
			}
		}
		r := row.Ratio
		add("ours", r.Mean)
		if r.High > 0 {
			ours.XYs = append(ours.XYs, plotter.XY{X: r.Mean, Y: float64(len(names))})
			ours.XErrors = append(ours.XErrors, struct{ Low, High float64 }{r.Mean - r.Low, r.High - r.Mean})
		}
		names = append(names, strings.TrimSuffix(row.Workload+", "+row.Figure, ", ns/op"))
	}
	if len(names) == 0 {
		return errors.New("there is nothing to draw")
	}
	p := plot.New()
	for _, style := range []*font.Font{
		&p.Title.TextStyle.Font, &p.Legend.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font,
	} {
		style.Variant = "Sans"
	}
	p.Title.Text = "Cost as a multiple of raw nats.go: less is better"
	p.X.Label.Text = "bars: 95 % interval of the mean over the rounds"
	if len(ours.XYs) == 0 {
		p.X.Label.Text = "one round"
	}
	p.X.Scale = plot.LogScale{}
	p.X.Tick.Marker = plot.ConstantTicks{
		{Value: 0.01, Label: "0.01"}, {Value: 0.02, Label: "0.02"}, {Value: 0.05, Label: "0.05"}, {Value: 0.1, Label: "0.1"},
		{Value: 0.2, Label: "0.2"}, {Value: 0.5, Label: "0.5"}, {Value: 1, Label: "1"}, {Value: 2, Label: "2"}, {Value: 5, Label: "5"},
		{Value: 10, Label: "10"}, {Value: 20, Label: "20"}, {Value: 50, Label: "50"}, {Value: 100, Label: "100"},
	}
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{0xc8}, color.Gray{0xe0}
	even, err := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.5}, {X: 1, Y: float64(len(names)) - 0.5}})
	if err != nil {
		return err
	}
	even.Width = vg.Points(1.5)
	p.Add(grid, even)
	p.Legend.Add("raw nats.go", even)
	sides := slices.DeleteFunc(slices.Sorted(maps.Keys(points)), func(side string) bool { return side == "ours" })
	sides = slices.Insert(sides, 0, "ours")
	looks := []draw.GlyphStyle{
		{Color: color.RGBA{24, 90, 169, 255}, Shape: draw.CircleGlyph{}, Radius: vg.Points(3)},
		{Color: color.RGBA{0, 140, 72, 255}, Shape: draw.SquareGlyph{}, Radius: vg.Points(3.5)},
		{Color: color.RGBA{238, 46, 47, 255}, Shape: draw.TriangleGlyph{}, Radius: vg.Points(3.5)},
	}
	for i, side := range sides {
		scatter, err := plotter.NewScatter(points[side])
		if err != nil {
			return err
		}
		scatter.GlyphStyle = looks[i%len(looks)]
		if side == "ours" && len(ours.XYs) > 0 {
			bars, err := plotter.NewXErrorBars(ours)
			if err != nil {
				return err
			}
			bars.Color = scatter.Color
			p.Add(bars)
		}
		p.Add(scatter)
		p.Legend.Add(side, scatter)
	}
	p.NominalY(names...)
	p.X.Min, p.X.Max = least, most                            // an interval may be wider
	p.Y.Max = float64(len(names)) + float64(len(sides)) + 0.5 // the legend stands above the rows
	p.Legend.Top, p.Legend.Left, p.Legend.Padding = true, true, vg.Points(2)
	return save(p, vg.Length(len(names)+8)*0.55*vg.Centimeter, file)
}

// save leaves a margin, for whoever shows the drawing may have a wider font.
func save(p *plot.Plot, height vg.Length, file string) error {
	const width, margin = 24 * vg.Centimeter, vg.Centimeter / 2
	canvas, err := draw.NewFormattedCanvas(width, height, strings.TrimPrefix(filepath.Ext(file), "."))
	if err != nil {
		return err
	}
	p.Draw(draw.Crop(draw.New(canvas), margin, -margin, margin, -margin))
	to, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = canvas.WriteTo(to)
	return errors.Join(err, to.Close())
}
