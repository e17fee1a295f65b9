
  // Let each port wait for longer than the watchdog takes.
  task stand_still;
    begin
      reset;
      sent = 0;
      stop = 1;
      while (stimulus[stop-1][INPUT_BITS])
        stop = stop + 1;
      due = OUTPUTS;
      while (!failed && starved < WATCHDOG + 9) begin
        quiet = 0;
        tick;
      end
      stop = ELEMENTS;
      hold_output = 1'b1;
      while (!failed && refused < WATCHDOG + 9) begin
        if (refused > 0)
          quiet = 0;
        tick;
      end
      hold_output = 1'b0;
      run;
      reset;
    end
  endtask
