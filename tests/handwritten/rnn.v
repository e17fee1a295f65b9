// h' = phi(W x + U h + b).
module combine #(
    parameter PHI = "hard_tanh", W_acc_h = 8, F_acc_h = 0, W_a_h = 8, F_a_h = 0, S_a_h = 1, W_h = 8, F_h = 0, S_h = 1
) (input signed [W_acc_h-1:0] acc_h, output [W_a_h-1:0] a_h, output [W_h-1:0] h);
  wire signed [W_a_h:0] a;
  wire signed [W_h:0] new_h;
  store #(.WI(W_acc_h), .FI(F_acc_h), .W(W_a_h), .F(F_a_h), .S(S_a_h)) pre (acc_h, a);
  activate #(.KIND(PHI), .WI(W_a_h + 1), .FI(F_a_h), .W(W_h), .F(F_h), .S(S_h)) output_h (a, new_h);
  assign a_h = a[W_a_h-1:0];
  assign h = new_h[W_h-1:0];
endmodule
