// The test bench of hwrnn/sim/verilog.py around a generated top: it drives both ports as the stalls say and writes each
// transfer into record.txt, "i CYCLE" at the input and "o CYCLE DATA LAST CHANNEL" at the output. Names between two @ are
// filled in.
module driver;
  reg aclk = 1'b0;
  reg aresetn = 1'b0;
  reg [@INPUT_BITS@-1:0] s_axis_tdata = 0;
  reg s_axis_tvalid = 1'b0;
  reg s_axis_tlast = 1'b0;
  wire s_axis_tready;
  wire [@OUTPUT_BITS@-1:0] m_axis_tdata;
  wire m_axis_tvalid;
  wire m_axis_tlast;
  wire [@TID_BITS@-1:0] m_axis_tid;
  reg m_axis_tready = 1'b0;

  @NAME@ dut (
    .aclk(aclk), .aresetn(aresetn),
    .s_axis_tdata(s_axis_tdata), .s_axis_tvalid(s_axis_tvalid), .s_axis_tready(s_axis_tready),
    .s_axis_tlast(s_axis_tlast),
    .m_axis_tdata(m_axis_tdata), .m_axis_tvalid(m_axis_tvalid), .m_axis_tready(m_axis_tready),
    .m_axis_tlast(m_axis_tlast)@TID@@LOAD@
  );

  // The last flag stands above the data.
  reg [@INPUT_BITS@:0] stimulus [0:@ELEMENTS@-1];
  reg [0:0] supply [0:@SUPPLY@-1];
  reg [0:0] demand [0:@DEMAND@-1];
  integer record;
  integer cycle = 0;   // the one that the next rising edge ends
  integer last_cycle = @LIMIT@;
  integer sent = 0;
  integer received = 0;
  integer quiet = 0;
  reg offered = 1'b0;  // an element waits for its transfer
  reg ready_before = 1'b0;
  reg valid_before = 1'b0;

  // Both ports change at the falling edge in the middle of a cycle; the rising edge ends it.
  initial begin
    $readmemh("stimulus.hex", stimulus);
    $readmemh("supply.hex", supply);
    $readmemh("demand.hex", demand);
    record = $fopen("record.txt", "w");
    repeat (4) begin
      #1 aclk = 1'b1;
      #1 aclk = 1'b0;
    end
    aresetn = 1'b1;
    #1 aclk = 1'b1;    // the top takes its reset back one cycle later
    #1 aclk = 1'b0;
    while (cycle < last_cycle) begin
      if (!offered && sent < @ELEMENTS@ && supply[cycle % @SUPPLY@] && (ready_before || !@SUPPLY_WAITS@)) begin
        offered = 1'b1;
        s_axis_tdata = stimulus[sent][@INPUT_BITS@-1:0];
        s_axis_tlast = stimulus[sent][@INPUT_BITS@];
      end
      s_axis_tvalid = offered;
      m_axis_tready = demand[cycle % @DEMAND@] && (valid_before || !@DEMAND_WAITS@);
      #1;
      ready_before = s_axis_tready;
      valid_before = m_axis_tvalid;
      quiet = quiet + 1;
      if (s_axis_tvalid && s_axis_tready) begin
        $fwrite(record, "i %0d\n", cycle);
        offered = 1'b0;
        sent = sent + 1;
        quiet = 0;
      end
      if (m_axis_tvalid && m_axis_tready) begin
        $fwrite(record, "o %0d %h %b %0d\n", cycle, m_axis_tdata, m_axis_tlast, @CHANNEL@);
        received = received + 1;
        quiet = 0;
        if (received == @OUTPUTS@)
          last_cycle = cycle + 1 + @TAIL@;
      end
      if (received < @OUTPUTS@ && quiet >= @PATIENCE@)
        last_cycle = cycle;
      aclk = 1'b1;
      #1 aclk = 1'b0;
      cycle = cycle + 1;
    end
    $fclose(record);
    $finish;
  end
endmodule
