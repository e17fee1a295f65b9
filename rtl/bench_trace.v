
  localparam TRACE_CYCLES = @CYCLES@;       // words of trace.hex

  // What the ports are given, what they show in any case, and what they show with m_axis_tvalid.
  reg [@BITS@-1:0] trace [0:TRACE_CYCLES-1];
  reg [@GIVEN_BITS@-1:0] given;
  reg [@ALWAYS_BITS@-1:0] shown, shown_then;
  reg [@CARRIED_BITS@-1:0] carried, carried_then;
  integer line;

  // Random traffic once more, cycle by cycle.
  task play_back;
    begin
      $readmemh("trace.hex", trace);
      reset;
      if (^trace[TRACE_CYCLES-1] === 1'bx)
        fail("trace.hex is not in this folder");
      for (line = 0; line < TRACE_CYCLES && !failed; line = line + 1) begin
        {given, shown_then, carried_then} = trace[line];
        {@GIVEN@} = given;
        #5;
        shown = {@ALWAYS@};
        carried = {@CARRIED@};
        if (shown !== shown_then || (m_axis_tvalid && carried !== carried_then)) begin
          $display("FAIL @NAME@: line %0d of trace.hex says %h and %h of the outputs, not %h and %h", line + 1,
            shown_then, carried_then, shown, carried);
          failed = 1'b1;
        end
        aclk = 1'b1;
        #5;
        aclk = 1'b0;
        cycle = cycle + 1;
      end
    end
  endtask
